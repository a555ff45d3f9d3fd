using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>Layers of one's own.</content>
internal sealed partial class TrainingPlanner
{
    private void EmitCustom(Node node, CustomLayer layer)
    {
        CustomForwardTensors tensors = CustomTensors(node, layer);
        BatchNormStatistics statistics = _options.FrozenStatistics ? BatchNormStatistics.Running : BatchNormStatistics.Batch;
        List<Tensor> diffParameters = [];
        Tensor[] parameters = [.. tensors.Spec.Parameters.Select(p =>
        {
            Tensor parameter = Learn(node, p.Name, TensorLayout.Plain, out Tensor gradient);
            diffParameters.Add(gradient);
            return parameter;
        })];
        Tensor[] running = [.. tensors.Spec.RunningStatistics.Select(p => AddState(node, p.Name, TensorLayout.Plain))];
        EmitCustom(node, new CustomForward(node.Name, tensors.Spec, statistics, tensors.Srcs, parameters, running, tensors.Dst, tensors.Saved));
        _backward[node] = () =>
        {
            Tensor diffDst = AsPlainFloat(Gradient(node));
            BatchNormStatistics backward = _options.ConstantStatistics ? BatchNormStatistics.Running : statistics;
            CustomBackward Backward(IReadOnlyList<Tensor> diffSrcs) => new(
                node.Name, tensors.Spec, backward, tensors.Srcs, diffDst, parameters, running, tensors.Saved, diffSrcs, diffParameters);
            Tensor[] diffSrcs = [.. tensors.Spec.Srcs.Select((s, i) => new Tensor($"{node.Name}.diff_src{i}", s, TensorRole.Gradient))];
            if (node.Inputs is [Node only] && _needGradient.Contains(only) && !ActivationType.IsNarrow())
            {
                Contribute(only, TensorLayout.Plain, diffSrc => Backward([diffSrc]));
                return;
            }

            Emit(Backward(diffSrcs));
            for (int i = 0; i < diffSrcs.Length; i++)
            {
                Tensor diffSrc = diffSrcs[i];
                Contribute(node.Inputs[i], Value(node.Inputs[i]).Layout, target => new Copy($"{node.Name}/{node.Inputs[i].Name}.diff", diffSrc, target));
            }
        };
    }
}
