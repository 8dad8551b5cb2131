"""From a genotype to the blocks of its network, with their widths; no tensors."""

from dataclasses import dataclass

from iac_core.backbones.mixed_block.genotype import MixedGenotype


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """One searched block, with what comes before and after it.

    Attributes:
        block: Its name.
        kernel: Its kernel.
        upsampled_channels: Channels that a transposed convolution takes before the block and
            halves; None if there is none.
        in_channels: Channels that the block takes.
        out_channels: Channels that it returns.
        stride: 2 for a step down, else 1.
        source: Node whose own feature is concatenated to the block's; None for no skip.
        level: Level of the block's feature.
    """

    block: str
    kernel: int
    upsampled_channels: int | None
    in_channels: int
    out_channels: int
    stride: int
    source: int | None
    level: int


def decoded(genotype: MixedGenotype, *, width: int, max_width: int) -> tuple[BlockPlan, ...]:
    """Return the blocks, one for each node of the genotype.

    Block l lies between nodes l and l + 1 and has block and kernel of node l; the last one leads
    from the last node to the logits. The stem, which makes the feature of node 0, is not among
    them: it is a VGG block with kernel 3 (authors' code). A last node of level 1 has an up-step
    before the last block (our choice: the papers' count of the space has such nodes).

    Args:
        genotype: The network.
        width: Channels of level 0; each level doubles them.
        max_width: Most channels of a level. The authors' code has a cap too, which none of their
            genotypes reaches; here levels beyond it still halve the resolution.
    """
    nodes, plans = genotype.nodes, []
    arriving, level = width, 0  # of the node that a block leaves
    for index, node in enumerate(nodes):
        is_last = index == len(nodes) - 1
        target = 0 if is_last else nodes[index + 1].level
        is_up = target < level
        out = min(width * 2**target, max_width)
        plans.append(
            BlockPlan(
                block=node.block,
                kernel=node.kernel,
                upsampled_channels=arriving if is_up else None,
                in_channels=arriving // 2 if is_up else arriving,
                out_channels=out,
                stride=2 if target > level else 1,
                source=None if is_last else genotype.source(index + 1),
                level=target,
            )
        )
        # A skip is as wide as the node's own feature: they are of one level.
        arriving = out if plans[-1].source is None else 2 * out
        level = target
    return tuple(plans)
