"""What this distribution offers to a user's own pymmcore-plus core: an output, a recording and an engine."""
