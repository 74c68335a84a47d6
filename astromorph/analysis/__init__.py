"""The step `analyse`: clusters, neighbours, outliers and a 2-D layout."""
