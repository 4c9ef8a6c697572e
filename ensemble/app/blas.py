"""How many threads numpy's matrix products use: those of a search are small."""

from __future__ import annotations

from threadpoolctl import ThreadpoolController


def multiply_alone() -> None:
    """Have numpy compute matrix products on the thread that asks for them.

    With threads of its own, OpenBLAS leaves them looking for more work for some 20 ms after each product: 40 of the 118
    ms of a core that a search by id took. FAISS has an OpenBLAS of its own, which keeps its threads.
    """
    ThreadpoolController().select(internal_api="openblas").select(threading_layer="pthreads").limit(limits=1)
