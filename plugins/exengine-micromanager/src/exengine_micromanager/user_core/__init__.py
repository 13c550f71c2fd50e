"""An output, a recording and an engine for a user's own pymmcore-plus core."""
