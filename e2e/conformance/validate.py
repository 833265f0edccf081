"""Validates every file of a directory with pyx12; prints a JSON object of file name to {ok, errors}."""

import functools
import json
import logging
import pathlib
import sys

import pyx12.map_if
import pyx12.params
import pyx12.x12n_document


class Collect(logging.Handler):
    """Keeps what pyx12 logs of the file at hand."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def main(directory):
    # Loading a guide takes longer than using it; counts are kept outside the map.
    pyx12.map_if.load_map_file = functools.cache(pyx12.map_if.load_map_file)
    params = pyx12.params.params()
    heard = Collect()
    logger = logging.getLogger("pyx12")
    logger.addHandler(heard)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    verdicts = {}
    for path in sorted(pathlib.Path(directory).iterdir()):
        heard.lines = []
        ok = True
        try:
            ok = pyx12.x12n_document.x12n_document(
                param=params, src_file=str(path), fd_997=None, fd_html=None
            )
        except Exception as failed:  # pyx12 gives up on some malformed input
            ok = False
            heard.lines.append(f"{type(failed).__name__}: {failed}")
        verdicts[path.name] = {"ok": bool(ok), "errors": heard.lines}
    json.dump(verdicts, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
