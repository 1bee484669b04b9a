"""QLoRA fine-tuning in a program of your own: Lightning's Trainer, our module and data. CPU, no download."""

import lightning

from medqlora.callbacks import AdapterCheckpoint, EvaluationReport
from medqlora.data import SyntheticTrials
from medqlora.datamodule import PubMedQADataModule
from medqlora.models import LoRA, TinyLlama
from medqlora.module import QLoRAModule

lightning.seed_everything(0)
module = QLoRAModule(backend=TinyLlama(), lora=LoRA(r=16, alpha=32), learning_rate=3e-3, max_new_tokens=16)
data = PubMedQADataModule(source=SyntheticTrials(train=160, dev=32, test=40))
trainer = lightning.Trainer(
    max_epochs=1, accelerator="cpu", callbacks=[AdapterCheckpoint(), EvaluationReport()]
)
trainer.fit(module, datamodule=data)
scores = trainer.test(module, datamodule=data, ckpt_path="best")[0]
answers = [answer for group in trainer.predict(module, datamodule=data) for answer in group]
print(f"accuracy {scores['test/accuracy']:.1%}; the first answer: {answers[0]['text']}")
print(f"adapter: {trainer.log_dir}/adapter")
