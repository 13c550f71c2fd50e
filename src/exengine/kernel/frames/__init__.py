"""Everything about frames except their pixels: metadata, the coordinate index and the ledger."""
