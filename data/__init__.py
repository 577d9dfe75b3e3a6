"""Text in, batches out: sources, tokenizer, token store, order, packing, loader."""
