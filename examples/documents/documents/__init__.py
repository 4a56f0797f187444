"""From page images to text and fields: operators, data set and metric of the example."""
