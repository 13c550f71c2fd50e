"""Operations on datasets: create, open, overwrite, verify and recover the dataset at a path."""
