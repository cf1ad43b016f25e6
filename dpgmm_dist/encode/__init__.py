"""Raw rows (images, text) to embeddings and back: encoders and decoders, freely exchanged.

Encoding is PRIVATE and runs on workers, beside the rows. Decoding sees released rows alone.
"""
