//! The decision core: one pool of model servers as a state machine without IO, clock or runtime.
