//! Envoy's external processing protocol: the endpoint picker's side, and the side that asks one.
