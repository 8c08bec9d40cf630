"""Pool of training examples, created in a background thread."""

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from napari_rln.train.batches import Batch, draw_batch
from napari_rln.train.estimates_on_disk import EstimateCache
from napari_rln.train.example_folder import ExampleFolder
from napari_rln.train.examples import Example, ExampleSource, example, rescaled
from napari_rln.train.training_settings import TrainSettings
from napari_rln.train.validation import Network, with_output

FIRST = 8
"""Largest number of examples before the first step."""

_PREFETCH = 2  # examples created before they are needed


class Pool:
    """Examples by number, and batches of them; ``first`` is their number before the first step.

    The number of examples of a step depends on the step alone and not on how many are ready, so
    that the result does not depend on the speed of the machine.
    """

    def __init__(
        self,
        source: ExampleSource,
        settings: TrainSettings,
        cache: EstimateCache,
        folder: ExampleFolder | None = None,
    ) -> None:
        self._source, self._settings, self._cache = source, settings, cache
        self._folder = folder
        self._network: Network | None = None
        self._futures: list[Future[Example]] = []
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="examples")
        self._closed = False
        self._may_go_on = Event()
        self._may_go_on.set()
        self.output_scale = 1.0
        self.first = min(FIRST, settings.examples)

    def close(self) -> None:
        """Stop creating examples; finished ones remain available."""
        self._closed = True
        self._may_go_on.set()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def hold(self) -> None:
        """Begin no further example until :meth:`go_on`, or one is waited for."""
        self._may_go_on.clear()

    def go_on(self) -> None:
        """Create the requested examples."""
        self._may_go_on.set()

    @property
    def finished(self) -> int:
        """Number of created examples."""
        return sum(future.done() for future in self._futures)

    def example(self, number: int) -> Example:
        """Return a requested example, once created."""
        return self._created(self._futures[number])

    def _created(self, future: Future[Example]) -> Example:
        if not future.done():
            self.go_on()
        return future.result()

    def refine(self, network: Network) -> None:
        """Add the output of a network to the candidates of all examples, now and later.

        From then on batches are for a refinement.
        """
        self._network = network
        self._futures = [
            self._workers.submit(self._with_output, future) for future in self._futures
        ]

    def rescale(self, output_scale: float) -> None:
        """Change the output scale of all examples."""
        created = [future.result() for future in self._futures]
        factor, self.output_scale = output_scale / self.output_scale, output_scale
        self._futures = [_done(rescaled(made, factor)) for made in created]

    def request(self, step: int) -> None:
        """Schedule the creation of the examples of a step and of the next ones."""
        if self._closed:
            return
        count = min(self.needed(step) + _PREFETCH, self._settings.examples)
        for number in range(len(self._futures), count):
            self._futures.append(self._workers.submit(self._training, number))

    def batch(self, step: int, *seed: int) -> Batch:
        """Return the batch of a step and a seed."""
        self.request(step)
        needed = self._futures[: self.needed(step)]
        if self._closed:  # a cancelled training uses the finished ones
            needed = [f for f in needed if f.done() and not f.cancelled()]
        examples = [self._created(future) for future in needed]
        return draw_batch(
            examples, self._settings, self._source.symmetry, (self._settings.seed, *seed),
            refined=self._network is not None,
        )  # fmt: skip

    def needed(self, step: int) -> int:
        """Return the number of examples of a step."""
        more = step // self._settings.steps_per_example
        return min(self.first + more, self._settings.examples)

    def create(self, number: int, held_out: ExampleSource | None = None) -> Example:
        """Return a new example, of the held-out source if given, then stopped as in inference."""
        return example(
            held_out or self._source,
            number,
            self._settings.start_settings,
            self._settings.normalisation,
            output_scale=self.output_scale,
            by_truth=held_out is None,
            views=self._settings.views,
            cache=self._cache,
        )

    def _training(self, number: int) -> Example:
        """Return an example to train on, with the network's output for a refinement."""
        self._may_go_on.wait()
        if self._folder:
            made = self._folder.load(number, self.output_scale)
        else:
            made = self.create(number).arrays_alone()
        return made if self._network is None else with_output(made, self._network)

    def _with_output(self, future: Future[Example]) -> Example:
        assert self._network is not None
        return with_output(future.result(), self._network)


def _done(made: Example) -> Future[Example]:
    """Return a finished future of an example."""
    future: Future[Example] = Future()
    future.set_result(made)
    return future
