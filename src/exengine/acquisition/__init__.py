"""An acquisition: frame source -> data handler -> storage, and the observers that are notified."""
