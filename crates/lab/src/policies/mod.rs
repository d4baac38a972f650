//! Policies of the literature, each as its authors ship it.
