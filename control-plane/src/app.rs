//! What runs in a control plane, and in which order it stops.
