"""What is known of a document, and which documents are kept."""
