"""Devices that are not there: tensors on them hold their numbers in main memory, and mixing them fails."""

import re
from collections import Counter

import torch
from accelerate import dispatch_model
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

CPU, FIRST, SECOND = (torch.device(name) for name in ("cpu", "cuda:0", "cuda:1"))
FREE = ("index", "index_put_", "_to_copy", "copy_")  # take indices, or sources, from the CPU
READ = ("_local_scalar_dense", "is_nonzero", "equal")  # the host waits for a number


class There(torch.Tensor):
    """A tensor on a pretended device."""

    @staticmethod
    def __new__(cls, held, device):
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, **form, device=device)

    def __init__(self, held, device):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} outside of Devices")


def held(one):
    """Of arguments, what their tensors hold. Lists, tuples and dicts are all that arguments have."""
    if isinstance(one, There):
        return one.held
    if type(one) in (list, tuple):
        return type(one)([held(each) for each in one])
    return {name: held(each) for name, each in one.items()} if type(one) is dict else one


def tensors(*given):
    found = []
    for one in given:
        if isinstance(one, torch.Tensor):
            found.append(one)
        elif isinstance(one, (list, tuple)):
            found += tensors(*one)
        elif isinstance(one, dict):
            found += tensors(*one.values())
    return found


class Devices(TorchDispatchMode):
    """Computes with pretended tensors; counts copies to the CPU, and numbers that the host waits for."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()
        self.calls = _Calls(self.counts)

    def __enter__(self):
        self.calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.calls.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        given = tensors(args, kwargs)
        there = [one for one in given if isinstance(one, There)]
        places = {one.device for one in given if isinstance(one, There) or (one.dim() and name not in FREE)}
        assert len(places) < 2 or name == "copy_", f"{function} of tensors on {places}"
        place = kwargs.get("device") or (there[0].device if there else CPU)
        if there and (place == CPU or name in READ):
            self.counts["waits" if name in READ else "copies"] += 1
        if "device" in kwargs:
            kwargs = {**kwargs, "device": CPU}
        out = function(*held(args), **held(kwargs))
        own = {id(one.held): one for one in there}  # what an operation in place returns
        if place == CPU:
            return out
        if isinstance(out, torch.Tensor):
            return own[id(out)] if id(out) in own else There(out, place)
        return tree_map(lambda one: own.get(id(one), There(one, place)) if isinstance(one, torch.Tensor) else one, out)


class _Calls(TorchFunctionMode):
    """Calls that would start the missing driver before a dispatch mode sees them."""

    def __init__(self, counts):
        super().__init__()
        self.counts = counts

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.to:
            devices = [one for one in (*args[1:], kwargs.get("device")) if isinstance(one, (str, int, torch.device))]
            devices += [one.device for one in args[1:] if isinstance(one, torch.Tensor)]
            dtypes = [one for one in (*args[1:], kwargs.get("dtype")) if isinstance(one, torch.dtype)]
            dtypes += [one.dtype for one in args[1:] if isinstance(one, torch.Tensor)]
            asked = torch.device(devices[0]) if devices else args[0].device
            wanted = {"device": asked} if asked != args[0].device else {}
            wanted |= {"dtype": dtypes[0]} if dtypes and dtypes[0] != args[0].dtype else {}
            return torch.ops.aten._to_copy.default(args[0], **wanted) if wanted else args[0]
        if function is scaled_dot_product_attention:
            return self.whole(function, args, kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device) != CPU and not any(isinstance(one, There) for one in args):
            return There(function(*args, **{**kwargs, "device": CPU}), torch.device(device))
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if not re.search("not linked with support|not supported for tensor subclasses", str(error)):
                raise
            return self.whole(function, args, kwargs)

    def whole(self, function, args, kwargs):
        """A call that looks for the device's library, on what its tensors hold; indices may be on the CPU."""
        given = tensors(args, kwargs)
        places = {one.device for one in given if isinstance(one, There) or function is not torch.Tensor.__getitem__}
        assert len(places) == 1, f"{function} of tensors on {places}"
        out = function(*held(args), **held(kwargs))
        self.counts["waits"] += places != {CPU} and not isinstance(out, torch.Tensor)
        return There(out, *places) if places != {CPU} and isinstance(out, torch.Tensor) else out


def spread(backbone, second):
    """Put the modules of a backbone whose names begin so on the second device, the rest on the first, under Devices.

    As in accelerate's own maps, a tower, the projector and each decoder layer stay whole.
    """
    names = set()
    for name in [*backbone.model.state_dict(), *(name for name, _ in backbone.model.named_buffers())]:
        names.add(re.match(r"(model\.language_model\.(layers\.\d+|[^.]+)|model\.[^.]+|lm_head)", name)[0])
    placed = {name: SECOND if name.startswith(second) else FIRST for name in names}
    dispatch_model(backbone.model, placed, main_device=FIRST, force_hooks=True)
    backbone.placed = True
    return backbone
