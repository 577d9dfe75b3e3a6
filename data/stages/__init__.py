"""What is done to documents, one file a stage, each a pure function of a shard and settings.

shards.py     documents as Parquet files
read.py       a piece of a source -> shards of documents
clean.py      a shard -> the shard with its texts mended, and what is known of each document
select.py     what is known -> which documents are kept, and why the others are not
unique.py     documents that are there more than once
learn.py      a sample of the text, for the tokenizer
encode.py     documents -> ids
near.py       near duplicates
repeats.py    repeated stretches of ids
publish.py    what is left of the documents -> Parquet files beside the store
write.py      ids -> the shards of the token store, documents in random order
"""
