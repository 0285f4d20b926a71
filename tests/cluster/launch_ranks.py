"""One rank of a tiny run: it adds up the ranks' numbers over gloo, prints the sum, and ends, or hangs with `--hang`."""

import os
import sys
import time
from datetime import timedelta

from cluster.torchrun import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    import torch

    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    number = torch.tensor([torch.distributed.get_rank() + 1])
    torch.distributed.all_reduce(number)
    sys.stdout.write(f"sum {number.item()}\n")
    sys.stdout.flush()
    torch.distributed.barrier()
    if "--hang" in sys.argv:
        sys.stdout.write("all hang\n")
        sys.stdout.flush()
        time.sleep(600)
    os._exit(0)
