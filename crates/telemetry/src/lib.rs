//! Metric families and the access log: each name defined once.
