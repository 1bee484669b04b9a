"""`python -m medqlora.commands.fold_worker PARENT GROUP FOLD OPTIONS…`: one fold in a process of its own."""

import os
import sys

if __name__ == "__main__":
    from medqlora.commands.fold_training import worker
    from medqlora.utils.parent import end_with_parent

    if "LOCAL_RANK" not in os.environ:  # further processes of its run have another parent
        end_with_parent(int(sys.argv[1]))
    sys.exit(worker(sys.argv[2:]))
