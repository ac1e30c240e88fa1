"""The ground floor: values and decisions. Standard library and msgspec only; no await, no clock, no logger."""
