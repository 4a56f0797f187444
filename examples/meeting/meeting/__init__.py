"""Meeting example: operators, data set and metric of a pipeline from speech to text and keywords."""
