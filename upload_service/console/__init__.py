"""What a person sees of models: the start page, and a page for each."""
