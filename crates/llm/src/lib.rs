//! Wire formats of model servers: reads request bodies borrowed, scans response streams, speaks error dialects.
