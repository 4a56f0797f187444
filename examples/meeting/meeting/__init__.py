"""From speech in meetings to text and keywords: operators, data set and metric of the example."""
