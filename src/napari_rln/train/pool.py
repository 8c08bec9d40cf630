"""The examples of a training, made in a thread ahead of the steps that draw from them."""

from concurrent.futures import Future, ThreadPoolExecutor

from napari_rln.train.batches import Batch, draw_batch
from napari_rln.train.estimates_on_disk import Prepared
from napari_rln.train.examples import Example, ExampleSource, example, rescaled
from napari_rln.train.training_settings import TrainSettings

FIRST = 8
"""Examples before the first step."""

_AHEAD = 2  # examples made before they are wanted


class Pool:
    """Examples by their number, and batches of them.

    How many examples a step draws from depends on the step alone, not on how many are ready: so a
    training does not depend on the speed of the machine.

    Parameters
    ----------
    source
        Of the pairs.
    settings
        Of the training.
    prepared
        Keeps first estimates.
    """

    def __init__(self, source: ExampleSource, settings: TrainSettings, prepared: Prepared) -> None:
        self._source, self._settings, self._prepared = source, settings, prepared
        self._futures: list[Future[Example]] = []
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="examples")
        self._closed = False
        self.output_scale = 1.0

    def close(self) -> None:
        """Leave off making examples; those that are there stay."""
        self._closed = True
        self._workers.shutdown(wait=True, cancel_futures=True)

    def add(self, number: int) -> Example:
        """Return the example of a number, made at once."""
        made = self._make(number)
        done: Future[Example] = Future()
        done.set_result(made)
        self._futures.append(done)
        return made

    def rescale(self, output_scale: float) -> None:
        """Change what of the truth becomes 1, in all examples."""
        factor, self.output_scale = output_scale / self.output_scale, output_scale
        for i, future in enumerate(self._futures):
            done: Future[Example] = Future()
            done.set_result(rescaled(future.result(), factor))
            self._futures[i] = done

    def request(self, step: int) -> None:
        """Have the examples of a step and of those to come made."""
        if self._closed:
            return
        ahead = min(self._wanted(step) + _AHEAD, self._settings.examples)
        for number in range(len(self._futures), ahead):
            self._futures.append(self._workers.submit(self._make, number))

    def batch(self, step: int, *seed: int) -> Batch:
        """Return the batch of a step and a seed."""
        self.request(step)
        wanted = self._futures[: self._wanted(step)]
        if self._closed:  # a cancelled training makes do with what there is
            wanted = [f for f in wanted if f.done() and not f.cancelled()]
        examples = [future.result() for future in wanted]
        return draw_batch(
            examples, self._settings, self._source.symmetry, (self._settings.seed, *seed)
        )

    def _wanted(self, step: int) -> int:
        return min(FIRST + step // self._settings.every, self._settings.examples)

    def _make(self, number: int) -> Example:
        return example(
            self._source,
            number,
            self._settings.start_settings,
            self._settings.normalisation,
            output_scale=self.output_scale,
            by_truth=True,
            views=self._settings.views,
            prepared=self._prepared,
        )
