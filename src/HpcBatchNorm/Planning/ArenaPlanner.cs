namespace HpcBatchNorm.Planning;

/// <summary>
/// Places blocks that live for a range of operations into one arena: largest first, each at the lowest offset free during its whole life.
/// Kernels' scratch space takes part with a life of one operation, so it uses memory that activations do not need at that moment.
/// </summary>
internal static class ArenaPlanner
{
    private const long Alignment = 64;

    public readonly record struct Block(long Bytes, int First, int Last);

    /// <summary>The offset of each block, and the arena's size.</summary>
    public static (long[] Offsets, long Bytes) Place(IReadOnlyList<Block> blocks)
    {
        long[] offsets = new long[blocks.Count];
        long total = 0;
        List<int> placed = [];
        List<(long Start, long End)> taken = [];
        foreach (int index in Enumerable.Range(0, blocks.Count).OrderByDescending(i => blocks[i].Bytes).ThenBy(i => blocks[i].First).ThenBy(i => i))
        {
            Block block = blocks[index];
            long bytes = (block.Bytes + Alignment - 1) / Alignment * Alignment;
            taken.Clear();
            foreach (int other in placed)
            {
                if (blocks[other].First <= block.Last && block.First <= blocks[other].Last)
                {
                    taken.Add((offsets[other], offsets[other] + blocks[other].Bytes));
                }
            }

            taken.Sort();
            long offset = 0;
            foreach ((long start, long end) in taken)
            {
                if (offset + bytes <= start)
                {
                    break;
                }

                offset = Math.Max(offset, (end + Alignment - 1) / Alignment * Alignment);
            }

            offsets[index] = offset;
            placed.Add(index);
            total = Math.Max(total, offset + bytes);
        }

        return (offsets, total);
    }
}
