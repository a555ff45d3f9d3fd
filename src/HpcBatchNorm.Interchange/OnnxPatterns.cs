namespace HpcBatchNorm.Interchange;

/// <summary>
/// Nonlinearities that older operator sets write as several nodes: the last of them is replaced by one that says what they mean together. The others stay,
/// and are left out later when nothing else reads them.
/// </summary>
internal sealed class OnnxPatterns
{
    /// <summary>Operators that stand for several nodes. No file can have them, since their names are none that ONNX allows.</summary>
    public const string Silu = "(SiLU)", HardSwish = "(HardSwish)", Gelu = "(GELU)";

    private const double RootHalf = 0.70710678118654752;

    private readonly List<OnnxNode> _nodes;
    private readonly IReadOnlyDictionary<string, OnnxTensor> _constants;
    private readonly Dictionary<string, OnnxNode> _producers = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<int>> _consumers = new(StringComparer.Ordinal);

    private OnnxPatterns(List<OnnxNode> nodes, IReadOnlyDictionary<string, OnnxTensor> constants)
    {
        (_nodes, _constants) = (nodes, constants);
        for (int i = 0; i < nodes.Count; i++)
        {
            // What operators of other domains do is not known, whatever they are called.
            foreach (string output in nodes[i].Domain.Length == 0 ? nodes[i].Outputs : [])
            {
                _producers[output] = nodes[i];
            }

            foreach (string input in nodes[i].Inputs)
            {
                if (!_consumers.TryGetValue(input, out List<int>? consumers))
                {
                    _consumers.Add(input, consumers = []);
                }

                consumers.Add(i);
            }
        }
    }

    /// <summary>Replaces them in a list of nodes.</summary>
    public static void Replace(List<OnnxNode> nodes, IReadOnlyDictionary<string, OnnxTensor> constants)
    {
        var patterns = new OnnxPatterns(nodes, constants);
        for (int i = 0; i < nodes.Count; i++)
        {
            switch (nodes[i])
            {
                case { Domain.Length: > 0 }:
                    break;
                case { Operator: "Mul", Inputs.Count: 2 } product:
                    nodes[i] = patterns.Gated(product, product.Inputs[0], product.Inputs[1]) ?? patterns.Gated(product, product.Inputs[1], product.Inputs[0]) ?? product;
                    break;
                case { Operator: "Erf", Outputs.Count: 1 } erf:
                    patterns.ReplaceGelu(erf);
                    break;
            }
        }
    }

    /// <summary>x * sigmoid(x), x * hard sigmoid(x).</summary>
    private OnnxNode? Gated(OnnxNode product, string x, string gate) => _producers.GetValueOrDefault(gate) is { Inputs: [var argument] } node && argument == x
        ? node.Operator switch
        {
            "Sigmoid" => product.StandFor(Silu, x),
            "HardSigmoid" when Near(node.Real("alpha", 0.2f), 1 / 6.0) && Near(node.Real("beta", 0.5f), 0.5) => product.StandFor(HardSwish, x),
            _ => null,
        }
        : null;

    /// <summary>x/2 * (1 + erf(x / sqrt(2))), the factors of the product in any order.</summary>
    private void ReplaceGelu(OnnxNode erf)
    {
        if (_producers.GetValueOrDefault(erf.Input(0)) is not { Inputs.Count: 2 } argument || OnlyConsumer(erf.Outputs[0]) is not int sum)
        {
            return;
        }

        string? x = argument.Operator switch
        {
            "Mul" => OtherFactor(argument, RootHalf),
            "Div" when IsScalar(argument.Inputs[1], 1 / RootHalf) => argument.Inputs[0],
            _ => null,
        };
        if (x is null || _nodes[sum] is not { Operator: "Add", Domain: "", Inputs.Count: 2, Outputs.Count: 1 } one || !one.Inputs.Any(i => IsScalar(i, 1)))
        {
            return;
        }

        bool hasX = false, hasHalf = false;
        string value = one.Outputs[0];
        while (OnlyConsumer(value) is int next && _nodes[next] is { Operator: "Mul", Domain: "", Inputs.Count: 2, Outputs.Count: 1 } product)
        {
            string other = product.Inputs[0] == value ? product.Inputs[1] : product.Inputs[0];
            bool isHalfX = _producers.GetValueOrDefault(other) is { Operator: "Mul", Inputs.Count: 2 } half && OtherFactor(half, 0.5) == x;
            if ((other == x || isHalfX ? hasX : hasHalf) || !(other == x || isHalfX || IsScalar(other, 0.5)))
            {
                return;
            }

            hasX |= other == x || isHalfX;
            hasHalf |= other != x;
            value = product.Outputs[0];
            if (hasX && hasHalf)
            {
                _nodes[next] = product.StandFor(Gelu, x);
                return;
            }
        }
    }

    private static bool Near(double value, double wanted) => Math.Abs(value - wanted) <= 1e-5 * wanted;

    private string? OtherFactor(OnnxNode product, double factor) =>
        IsScalar(product.Inputs[1], factor) ? product.Inputs[0] : IsScalar(product.Inputs[0], factor) ? product.Inputs[1] : null;

    private bool IsScalar(string name, double wanted)
    {
        try
        {
            return _constants.TryGetValue(name, out OnnxTensor? tensor) && tensor.TryScalar(out float value) && Near(value, wanted);
        }
        catch (UserErrorException)
        {
            return false; // said where it is used
        }
    }

    private int? OnlyConsumer(string value) => _consumers.GetValueOrDefault(value) is [int only] ? only : null;
}
