"""The public interface: `Workspace` with one method for each verb, and its typed results."""
