//! Objects from a cluster, statuses back to it.
