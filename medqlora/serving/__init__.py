"""Serving: an HTTP API and a page over one or more inference processes. Importing it needs no torch.

    question --HTTP--> app --pool--> inference process: engine --> events --> answer

`app` knows HTTP and no model; `engines` know models and no HTTP; `pool` carries jobs and events between the processes.
"""

from medqlora.serving.engine import Delta, Done, Engine, Event, Failed, Inbox, Job, Scores, ServedModel

__all__ = ["Delta", "Done", "Engine", "Event", "Failed", "Inbox", "Job", "Scores", "ServedModel"]
