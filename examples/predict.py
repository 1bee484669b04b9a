"""Answers to questions in a program of your own, with the adapter of a finished run."""

from medqlora.inference import Predictor

predictor = Predictor.load("lightning_logs/version_0")
answer = predictor.answer("Does drug 7 help?", context="Trial 7 of it. The result was yes.")
print(answer.text)
