using System.IO.Enumeration;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Planning;

/// <summary>A factor on the learning rate of some parameters, as a group of parameters with a rate of its own has it in PyTorch.</summary>
/// <param name="Pattern">Which parameters (<see cref="ParameterPattern"/>).</param>
/// <param name="Factor">What the step's learning rate is multiplied by for them, 0 or more; with 0 they keep their values while their momenta go on.</param>
public readonly record struct RateFactor(string Pattern, float Factor);

/// <summary>
/// Names parameters of a network: * stands for any characters, slashes and dots too, ? for one. A pattern names a parameter when it matches the whole of its
/// name (<c>inception_3a/1x1/conv.weights</c>) or of its layer's (<c>inception_3a/1x1/conv</c>).
/// </summary>
public static class ParameterPattern
{
    /// <summary>True when the pattern names the parameter.</summary>
    /// <param name="pattern">The pattern.</param>
    /// <param name="parameter">A parameter of a network.</param>
    public static bool Names(string pattern, NetworkParameter parameter) =>
        FileSystemName.MatchesSimpleExpression(pattern, parameter.Name, ignoreCase: false)
        || FileSystemName.MatchesSimpleExpression(pattern, parameter.Node.Name, ignoreCase: false);
}

/// <summary>What the options say of one parameter.</summary>
/// <param name="Frozen">It does not learn.</param>
/// <param name="Decays">Weight decay applies to it.</param>
/// <param name="RateFactor">What its learning rate is multiplied by.</param>
internal readonly record struct ParameterRule(bool Frozen, bool Decays, float RateFactor);

/// <summary>The rules of all learned parameters of a network.</summary>
internal sealed class ParameterRules
{
    private readonly TrainingOptions _options;

    /// <exception cref="UserErrorException">A pattern names no parameter, a factor cannot be, or nothing is left that learns.</exception>
    public ParameterRules(TrainingOptions options, IReadOnlyList<NetworkParameter> parameters)
    {
        _options = options;
        NetworkParameter[] learned = [.. parameters.Where(p => p.Spec.Kind != ParameterKind.RunningStatistic)];
        Check("freeze", options.Frozen, learned);
        Check("no-decay", options.WithoutDecay, learned);
        Check("rate-factors", options.RateFactors.Select(f => f.Pattern), learned);
        foreach (RateFactor factor in options.RateFactors)
        {
            if (!(factor.Factor >= 0) || float.IsInfinity(factor.Factor))
            {
                throw new UserErrorException(FormattableString.Invariant($"rate-factors: the factor of '{factor.Pattern}' is {factor.Factor}; expected a number of 0 or more."));
            }
        }

        if (options.Frozen.Count > 0 && Array.TrueForAll(learned, p => Of(p).Frozen))
        {
            throw new UserErrorException($"freeze: '{string.Join(",", options.Frozen)}' names every parameter of the network; nothing would learn. Leave out the layers that are to be trained.");
        }
    }

    /// <summary>The rule of a parameter.</summary>
    public ParameterRule Of(NetworkParameter parameter)
    {
        float factor = 1;
        foreach (RateFactor candidate in _options.RateFactors)
        {
            if (ParameterPattern.Names(candidate.Pattern, parameter))
            {
                factor = candidate.Factor;
            }
        }

        bool decays = (parameter.Spec.Kind == ParameterKind.Weights || _options.DecayScaleAndShift) && !Any(_options.WithoutDecay, parameter);
        return new ParameterRule(Any(_options.Frozen, parameter), decays, factor);
    }

    private static bool Any(IReadOnlyList<string> patterns, NetworkParameter parameter)
    {
        foreach (string pattern in patterns)
        {
            if (ParameterPattern.Names(pattern, parameter))
            {
                return true;
            }
        }

        return false;
    }

    private static void Check(string setting, IEnumerable<string> patterns, NetworkParameter[] parameters)
    {
        foreach (string pattern in patterns)
        {
            if (!Array.Exists(parameters, p => ParameterPattern.Names(pattern, p)))
            {
                string hint = NearestName.Hint(pattern, parameters.Select(p => p.Name).Concat(parameters.Select(p => p.Node.Name).Distinct()));
                throw new UserErrorException(
                    $"{setting}: no layer or parameter of the network is named '{pattern}'{(hint.Length > 0 ? hint : $"; the first is '{parameters[0].Name}'. * stands for any characters.")}");
            }
        }
    }
}
