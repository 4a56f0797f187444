"""Which configurations to measure at all: what is believed of those not measured, and which come next."""
