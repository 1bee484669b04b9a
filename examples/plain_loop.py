"""QLoRA fine-tuning in a plain PyTorch loop: our data, model and training step, without Lightning. CPU, no download."""

import torch

from medqlora.config import DataOptions, StepOptions
from medqlora.data import SyntheticTrials
from medqlora.data.stage_data import StageData
from medqlora.models import LoRA, TinyLlama
from medqlora.training.optim import build_optimizer, warmup_cosine
from medqlora.training.step import TrainStep

device, options = torch.device("cpu"), StepOptions(learning_rate=3e-3)
backend = TinyLlama()
model = backend.load(lora=LoRA(r=16, alpha=32), adapter=None, device=device, dtype=torch.float32, seed=0)
data = StageData(SyntheticTrials(train=160, dev=32, test=40), None, DataOptions(batch_size=8))
data.read(backend.tokenizer(), ("train", "dev"))
named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
optimizer = build_optimizer("adamw_8bit", named, learning_rate=options.learning_rate, weight_decay=0.0)
steps = data.steps_per_epoch
scheduler = warmup_cosine(optimizer, warmup_steps=round(steps * options.warmup_ratio), total_steps=steps)
train = TrainStep(backend.decoder(model), optimizer, options, device=device, scheduler=scheduler)
for batch in data.train_loader(packed=True):
    print(f"loss {float(train.step(batch).loss):.5f}")
