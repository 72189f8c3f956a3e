"""The parts of TensorBoard's event files."""
