//! Tests of `apply` as tables.
