"""Document example: operators, data set and metric of a pipeline from page images to text and fields."""
