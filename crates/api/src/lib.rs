//! The Kubernetes kinds Pointsman reads: types, defaults, validation with field paths, conversion.
