//! Workloads: traces and generators.
