"""What a campaign is about changes: its classes, its pools, what is in them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from .event_log import CampaignError
from .folders import check_name
from .history import images_of, last_acts
from .image_index import scan_pool
from .reading import CampaignReading
from .state import State, add_contents

_log = logging.getLogger(__name__)


class CampaignChanging(CampaignReading):
    """The methods that change what a campaign is about, and that take back."""

    folder: Path

    def undo(self) -> list[str]:
        """Take the last decisions back: those of one ``teach`` that still hold.

        Or the answers of one :meth:`record_repeat` or :meth:`confirm`, or a change of
        the classes or the pools.

        Everything is as it was before them, the model and the next query included.
        The log keeps them, and that they were undone.

        Returns
        -------
        list of str
            The images they were about; none for a change of the classes or the pools.

        Raises
        ------
        CampaignError
            If there is nothing to undo.
        """
        with self._store.transaction():
            state = self._state()
            if not state.acts:
                raise CampaignError("There is nothing to undo.")
            if any(audit.event > state.acts[-1] for audit in state.audits) and (
                state.acts[-1] in state.pools.events
            ):
                raise CampaignError(
                    "The last change is a pool that was added, and an audit was drawn "
                    "since. Release the audit before ('skadma evaluate --release')."
                )
            together = last_acts(self._store, state)
            images = images_of(self._store, together)
            for event in together:
                self._store.add_event("undo", undone=event)
        return [state.paths[image] for image in images]

    # --- classes ------------------------------------------------------------

    def add_classes(self, names: Sequence[str]) -> None:
        """Add classes.

        Parameters
        ----------
        names : sequence of str

        Raises
        ------
        CampaignError
            If there is such a class already, or a name cannot be one.
        """
        self._change_classes("add", names, None)

    def rename_class(self, old: str, new: str) -> None:
        """Give a class another name; so are labels called that it was given before.

        Nothing is rewritten: the log keeps what was said.

        Parameters
        ----------
        old : str
        new : str

        Raises
        ------
        CampaignError
            If there is no class `old`, or one `new` already.
        """
        self._change_classes("rename", [old], new)

    def merge_classes(self, names: Sequence[str], into: str) -> None:
        """Make one class of several, whose labels are its own from now on.

        A class without labels is got rid of this way too.

        Parameters
        ----------
        names : sequence of str
            Classes. Their names are no classes any more, but for `into`.
        into : str
            One of them, another class, or a new name.

        Raises
        ------
        CampaignError
            If these are not two classes or more, or all there are.
        """
        self._change_classes("merge", names, into)

    def _change_classes(
        self, change: str, names: Sequence[str], into: str | None
    ) -> None:
        if isinstance(names, str):
            raise CampaignError(f"{names!r} must be a list of names of classes.")
        given = list(names)
        with self._store.transaction():
            naming = self._state().naming
            naming.change(change, given, into, event=0)  # or it cannot be
            self._store.add_event("classes", change=change, names=given, into=into)
        _log.info("classes: %s", ", ".join(naming.classes))

    # --- pools --------------------------------------------------------------

    def add_pool(
        self, folder: str | Path, name: str | None = None, *, verbose: bool = False
    ) -> str:
        """Add a folder of images, with its subfolders.

        Paths of its images begin with its name: "more-photos/7.jpg". An image that is
        in another pool as well is one, and has one label.

        Parameters
        ----------
        folder : str or Path
        name : str, optional
            If None, that of the folder, with a number where it is taken.
        verbose : bool, default=False
            Show a progress bar while images are read.

        Returns
        -------
        str
            Its name.

        Raises
        ------
        CampaignError
            If there is no readable image in it, it is in a pool already, or the name is
            taken.
        """
        root = Path(folder).absolute()
        if name is not None:
            check_name(name)
        with self._store.reading():
            self._check_pool(root, name, self._state())
        images = scan_pool(root, {}, progress=verbose)
        if not any(content.problem is None for content in images.values()):
            raise CampaignError(f"There is no readable image in {str(root)!r}.")
        with self._store.transaction():
            state = self._state()
            self._check_pool(root, name, state)  # another process may have been faster
            if name is None:
                paths = list(state.paths.values())
                name = self._places.choose_name(root, state.pools, paths)
            event = self._store.add_event(
                "pool", name=name, folder=str(root), n_images=len(images)
            )
            found = {f"{name}/{path}": content for path, content in images.items()}
            add_contents(self._store, found, event)
        _log.info("pool %s: %d images", name, len(images))
        return name

    def _check_pool(self, root: Path, name: str | None, state: State) -> None:
        if root == self.folder or root in self.folder.parents:
            raise CampaignError(
                f"The campaign's folder {str(self.folder)!r} is inside {str(root)!r}: "
                "its files would count as images. Add another folder."
            )
        self._places.check_apart(root, state.pools)
        paths = list(state.paths.values())
        if name is not None and self._places.taken(name, state.pools, paths):
            raise CampaignError(
                f"Paths that begin with {name!r} are there already, in the first pool "
                "or as another pool's name. Give the pool another name."
            )
