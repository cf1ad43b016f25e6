"""Encoders from raw rows (images, text) to embeddings, and decoders back to pictures and texts.

Encoding is PRIVATE and runs on the workers that read the rows. Decoding reads only released rows
and public items.
"""
