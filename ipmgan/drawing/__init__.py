"""Pictures of samples, of a witness, and of curves: tensors and records in, PNG files out."""
