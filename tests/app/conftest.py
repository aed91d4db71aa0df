"""A server with the page, whose model marks a ball in every report."""

import numpy as np
import pytest

from tests.fixtures.servers import MODEL, nifti, png, serve
from vividmed.processing.grounded_text import GroundedText, Phrase

REPORT = "A bright ball in the middle. A cube is seen. No fracture."


@pytest.fixture(scope="session")
def page_app(tmp_path_factory):
    from vividmed.app.routes import create_page
    from vividmed.app.samples import find_samples
    from vividmed.app.sessions import Sessions
    from vividmed.inference.predictor import Predictor
    from vividmed.serving.settings import ServerSettings

    predictor = Predictor(MODEL, device="cpu")
    predictor.model.generate_grounded = find_ball(predictor.model)
    folder = tmp_path_factory.mktemp("samples")
    (folder / "ball.nii").write_bytes(nifti((40, 48, 12)))
    (folder / "noise.png").write_bytes(png())
    return create_page(
        predictor,
        ServerSettings(model_name="tiny"),
        samples=find_samples(folder),
        sessions=Sessions(most=3),
    )


@pytest.fixture(scope="session")
def page(page_app):
    with serve(page_app) as address:
        yield address


def find_ball(model):
    """The random model marks no phrases of its own."""

    def generate(*, processor, geometry, grounding_values=None, find_form=None, **inputs):
        # The criteria of the server see tokens, as they do when the model writes.
        model.generate(**inputs)
        depth, height, width = geometry[0].original_size
        grid = np.ogrid[-1 : 1 : depth * 1j, -1 : 1 : height * 1j, -1 : 1 : width * 1j]
        ball = (
            sum(axis**2 for axis in grid) < 0.5
            if depth > 1
            else grid[1] ** 2 + grid[2] ** 2 < 0.5 + 0 * grid[0]
        )
        cube = np.array([[0, height / 8, width / 8, max(1, depth / 4), height / 3, width / 3]])
        phrases = [
            Phrase("ball", 9, 13, ball),
            Phrase("cube", 31, 35, None, cube, np.array([0.9]), cube * 1.0),
        ]
        phrases.append(Phrase("fracture", 48, 56))
        return [GroundedText(REPORT, phrases)]

    return generate
