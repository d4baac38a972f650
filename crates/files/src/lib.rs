//! Objects from files and directories, and a watch that tells when they change.
