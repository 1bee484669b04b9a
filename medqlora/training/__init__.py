"""What the training step is made of, apart from the model and the Trainer.

Engine and packing, optimizer and learning rate, a step that ran out of memory, its figures, and what a
checkpoint says of itself.
"""
