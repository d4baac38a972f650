//! Objects in, a plan and conditions out: compiles Gateway API and inference objects and routes requests.
