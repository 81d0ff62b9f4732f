"""PyTorch modules as functions of rows: evaluation mode, batches, devices, and put back as they
were.
"""

import numpy as np
import pytest

from mia_jax.external import frameworks

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
nn = torch.nn
X = np.random.default_rng(0).normal(size=(10, 3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def test_the_answer_is_that_of_evaluation_mode_whatever_the_batch():
    model = net()
    with torch.no_grad():
        expected = model.eval()(torch.tensor(X, dtype=torch.float32)).numpy()
    model.train()
    for size in (None, 4, 1):
        asked = frameworks.predictor(model, batch_size=size)
        assert np.allclose(asked.answer(X), expected, atol=1e-6)
    assert asked.words == "PyTorch Net" and asked.form is None


def test_the_module_is_put_back_as_it_was():
    model = net().train()
    model.body[2].eval()  # modes may be mixed
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    frameworks.predictor(model, batch_size=3).answer(X)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_the_module_is_put_back_after_an_error():
    model = net().train()
    with pytest.raises(RuntimeError):
        frameworks.predictor(model, batch_size=None).answer(X[:, :2])
    assert model.training and all(module.training for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_rows_take_the_dtype_of_the_parameters(dtype):
    asked = frameworks.predictor(net().to(dtype), batch_size=None).answer(X)
    assert asked.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert np.isfinite(asked).all()


def test_rows_may_be_tensors_lists_and_frames():
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    asked = frameworks.predictor(net(), batch_size=4)
    expected = asked.answer(X)
    tensor = torch.tensor(X)
    for x in (tensor, X.tolist(), list(tensor), pandas.DataFrame(X)):
        assert np.array_equal(asked.answer(x), expected)


def test_whole_numbers_stay_whole_and_dicts_are_keyword_arguments():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 2)

        def forward(self, tokens, scale):
            class Output:
                logits = self.embedding(tokens).mean(1) * scale

            return Output()

    model, tokens = Bag(), np.array([[0, 1], [2, 3], [4, 4]], np.uint16)
    asked = frameworks.predictor(model, batch_size=2)
    answer = asked.answer(dict(tokens=tokens, scale=np.full((3, 1), 2.0)))
    assert np.allclose(answer, 2 * model.embedding.weight.detach().numpy()[tokens].mean(1))


def test_a_module_of_no_parameters_is_a_function_on_the_cpu():
    assert np.array_equal(frameworks.predictor(nn.Softmax(-1)).answer(X).shape, (10, 3))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: (nn.Linear(3, 2, device="meta"), None), "device 'meta', which holds no data"),
        (lambda: (net(), "cuda"), r"device 'cuda.*' cannot be used .*model\.to\('cpu'\)"),
        (lambda: (net(), "nowhere"), "device 'nowhere' cannot be used"),
    ],
    ids=["meta", "cuda", "unknown"],
)
def test_a_device_that_is_not_there_is_a_sentence(make, message):
    model, device = make()
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match=message):
        frameworks.predictor(model, device=device)


def test_texts_and_several_outputs_are_refused_in_a_sentence():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ValueError, match="PyTorch module Two, which returns a tuple"):
        frameworks.predictor(Two()).answer(X)
    with pytest.raises(ValueError, match=r"x holds <U1 values, and nets take numbers; encode"):
        frameworks.predictor(net()).answer(["a", "b"])
    with pytest.raises(ValueError, match="pass a function fit"):
        frameworks.trainer(net())
