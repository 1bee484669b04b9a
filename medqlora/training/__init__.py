"""Training without Lightning: the optimizer step, engine choice, memory plan, optimizers and checks before step one."""
